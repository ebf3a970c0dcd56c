-- Drops the view with which earlier releases read orders. None of their replicas may run.
set local lock_timeout = '5s';

drop view order_documents;
