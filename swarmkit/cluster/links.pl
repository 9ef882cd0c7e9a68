# Whether packets get from host to host, tried by the hosts themselves. With what Debian's perl-base has.
#
#   listen FILE SECONDS NONCE TCP_PORTS    writes into FILE what arrives; ends by itself after SECONDS,
#       and with the SSH connection that it was started over
#   send NONCE OWN_NUMBER SECONDS BYTES PEER…   a PEER is NUMBER/ADDRESS/TCP_PORTS/UDP_PORTS
#
# UDP is watched for by a raw socket: it gets what the firewall lets in whether or not something has the
# port (on a node of a swarm the engine and the kernel have), and takes nothing away from whoever does.
# TCP needs someone who answers: where the port is free, we do.
#
# A datagram begins as a VXLAN header without the bit that makes it valid, so that the kernel drops it
# (RFC 7348, 5); the engine's gossip drops what is not encrypted with its key, with a line in its log.
use strict;
use warnings;
use Errno qw(EINPROGRESS);
use Fcntl qw(F_GETFL F_SETFL O_NONBLOCK);
use POSIX ();
use Socket;

use constant { MAGIC => "\0swk\0\0\0\0", COPIES => 3, PAUSE => 0.03, GOSSIP => 7946 };
# Linux (linux/in.h, asm/socket.h): IPPROTO_IP, IPPROTO_UDP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE;
# SO_ATTACH_FILTER, SO_REUSEPORT.
use constant { IP => 0, UDP => 17, MTU_DISCOVER => 10, PROBE => 3, ATTACH_FILTER => 26, REUSE_PORT => 15 };

sub listen_for {
    my ($file, $seconds, $nonce, @ports) = @_;
    socket(my $raw, PF_INET, SOCK_RAW, UDP) or die "raw socket: $!\n";
    # The rest of the host's traffic must not wake us: x = length of the IP header; the word behind the
    # UDP header is ours or not.
    my $filter = join '', map { pack 'SCCL', @$_ } [0xb1, 0, 0, 0], [0x40, 0, 0, 8],
        [0x15, 0, 1, unpack('N', MAGIC)], [0x06, 0, 0, 0xffff], [0x06, 0, 0, 0];
    setsockopt($raw, SOL_SOCKET, ATTACH_FILTER, pack('S x![L!] P', 5, $filter)) or die "filter: $!\n";
    my @listening;
    for my $port (@ports) {
        socket(my $tcp, PF_INET, SOCK_STREAM, 0) or die "socket: $!\n";
        # Two checks at one time share the port; with the engine we never do.
        setsockopt($tcp, SOL_SOCKET, $_, 1) for SO_REUSEADDR, REUSE_PORT;
        # A port that is taken is answered by whoever has it.
        push @listening, $tcp if bind($tcp, sockaddr_in($port, INADDR_ANY)) && listen($tcp, 512);
    }
    my $connection = sshd_above();
    umask 077;
    open(my $out, '>', $file) or die "$file: $!\n";
    defined(my $pid = fork) or die "fork: $!\n";
    if ($pid) { print "ready\n"; return; }
    POSIX::setsid();
    open STDIN, '<', '/dev/null';
    open STDOUT, '>', '/dev/null';
    open STDERR, '>', '/dev/null';
    my $end = sub { unlink $file; POSIX::_exit(0) };
    $SIG{ALRM} = $end;
    alarm $seconds;
    syswrite $out, "pid $$\n";
    my %seen;
    while (1) {
        my $bits = '';
        vec($bits, fileno $_, 1) = 1 for $raw, @listening;
        my $ready = $bits;
        my $count = select($ready, undef, undef, 1);
        $end->() if $connection && !kill(0, $connection);
        next unless $count > 0;
        for my $tcp (grep { vec $ready, fileno $_, 1 } @listening) {
            if (accept(my $peer, $tcp)) { close $peer }
        }
        next unless vec $ready, fileno $raw, 1;
        defined recv($raw, my $packet, 65535, 0) or next;
        my $header = 4 * (ord($packet) & 15);
        my $source = inet_ntoa(substr $packet, 12, 4);
        my $port = unpack 'n', substr($packet, $header + 2, 2);
        my ($said, $number) = split ' ', substr($packet, $header + 8 + length MAGIC, 64);
        next unless defined $number && $said eq $nonce && $number =~ /^\d+$/;
        my $line = join ' ', 'udp', $number, $port, $source, length $packet;
        syswrite $out, "$line\n" unless $seen{$line}++;
    }
}

# The process that serves our SSH connection, or 0.
sub sshd_above {
    my $pid = $$;
    while ($pid > 1) {
        open(my $file, '<', "/proc/$pid/stat") or return 0;
        my ($name, $parent) = <$file> =~ /\((.*)\) \S (\d+)/ or return 0;
        return $pid if $name =~ /^sshd/;
        $pid = $parent;
    }
    return 0;
}

sub send_to {
    my ($nonce, $number, $seconds, $bytes, @peers) = @_;
    socket(my $small, PF_INET, SOCK_DGRAM, 0) or die "socket: $!\n";
    socket(my $large, PF_INET, SOCK_DGRAM, 0) or die "socket: $!\n";
    # "Don't fragment", and no belief in what was learnt before.
    setsockopt($large, IP, MTU_DISCOVER, pack 'i', PROBE) or die "don't fragment: $!\n";
    my $text = MAGIC . "$nonce $number ";
    my $filled = $text . ' ' x ($bytes - 28 - length $text);
    my (%open, %failed, @trials);
    for (@peers) {
        my ($peer, $address, $tcp, $udp) = split m{/};
        for my $port (split /,/, $tcp) {
            socket(my $try, PF_INET, SOCK_STREAM, 0) or die "socket: $!\n";
            fcntl $try, F_SETFL, fcntl($try, F_GETFL, 0) | O_NONBLOCK;
            if (connect($try, sockaddr_in($port, inet_aton($address))) || $! == EINPROGRESS) {
                $open{fileno $try} = [$try, $peer, $port];
            } else { print "tcp $peer $port $!\n"; }
        }
        my @ports = split /,/, $udp;
        push @trials, [$small, $text, $peer, $_, $address] for @ports;
        push @trials, [$large, $filled, $peer, $ports[-1], $address] if $bytes;
    }
    for my $copy (1 .. COPIES) {
        for (@trials) {
            my ($socket, $what, $peer, $port, $address) = @$_;
            # Twice will do where each makes a line in the engine's log.
            next if $port == GOSSIP && $copy == COPIES;
            next if defined send $socket, $what, 0, sockaddr_in($port, inet_aton($address));
            $failed{join ' ', $socket == $large ? 'mtu' : 'udp', $peer, $port, $!}++;
        }
        select undef, undef, undef, PAUSE if $copy < COPIES;
    }
    print "$_\n" for keys %failed;
    my $until = time + $seconds;
    while (%open && time <= $until) {
        my $bits = '';
        vec($bits, $_, 1) = 1 for keys %open;
        my $ready = $bits;
        select(undef, $ready, undef, 0.2) > 0 or next;
        for (grep { vec $ready, $_, 1 } keys %open) {
            my ($try, $peer, $port) = @{delete $open{$_}};
            my $error = unpack 'i', getsockopt($try, SOL_SOCKET, SO_ERROR);
            print "tcp $peer $port ", $error ? POSIX::strerror($error) : 'open', "\n";
        }
    }
    print "tcp $_->[1] $_->[2] no answer\n" for values %open;
}

$| = 1;
$ENV{LC_ALL} = 'C';
POSIX::setlocale(POSIX::LC_ALL(), 'C');
my $task = shift;
if ($task eq 'listen') {
    my ($file, $seconds, $nonce, $ports) = @ARGV;
    listen_for($file, $seconds, $nonce, split /,/, $ports);
} else { send_to(@ARGV) }
